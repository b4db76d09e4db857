"""The applications that are measured. Each serves `GET /events`, one stream of the one topic, and `GET /hello`."""
