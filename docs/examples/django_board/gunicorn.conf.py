from pgfanout.gunicorn import post_worker_init, worker_exit  # noqa: F401

worker_class = "gthread"
threads = 4
