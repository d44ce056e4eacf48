"""What workers, servers and clients must agree on: job file, parameter layout, messages, errors."""
