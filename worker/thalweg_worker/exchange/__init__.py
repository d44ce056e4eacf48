"""A worker's end of the exchange with its host.

connection.py   the socket to the server: joining, telling how a step went, leaving
meeting.py      where the workers of one host meet, and do the server's part of a step themselves
served.py       where the server does it: it says what to compute, and hears how far it is
"""

from thalweg_worker.exchange.connection import Connection, join
from thalweg_worker.exchange.meeting import MeetingExchange, NewServerWork, ServerWork
from thalweg_worker.exchange.served import ServedExchange

__all__ = ["Connection", "MeetingExchange", "NewServerWork", "ServedExchange", "ServerWork", "join"]
