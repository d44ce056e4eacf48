"""Who is let in at a door, and who can listen on the way. Knows nothing of gRPC.

tokens.py        what a bearer token allows: read, or everything
certificates.py  the certificates of a run, made for it and gone with it; and what is wrong with given ones
guard.py         what a door asks for, and where it refuses to listen
given.py         what a person gives: tokens and certificates, as text or as files
run.py           what the doors of one run ask for
"""
