"""The cluster: sum, update, publish; and the launching, measuring and watching of jobs."""
