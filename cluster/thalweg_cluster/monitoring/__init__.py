"""What watches runs, as code: metrics, rules, dashboards, and where Prometheus finds what it scrapes. Pure: values in,
text out; `files.py` puts it together.

catalogue.py   every metric: name, type, unit, labels, meaning, what to do about a bad value
docs.py        the page that says so
rules.py       what Prometheus works out of them (efficiency among it), and of what it warns; rule_tests.py tests them
panels.py      dashboards.py: what Grafana shows
targets.py     which processes there are to scrape
prometheus.py  the configuration of Prometheus, and what Grafana loads when it starts
"""
