"""The smallest settings for a page that follows its database."""

SECRET_KEY = "change me"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "board.urls"
WSGI_APPLICATION = "board.wsgi.application"
INSTALLED_APPS = ["pgfanout.django", "board"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
# The server is that of PGHOST, PGPORT and PGUSER, as for psql. Name it here with HOST, PORT, USER and PASSWORD.
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "board", "ATOMIC_REQUESTS": True}}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

PGFANOUT = {"HISTORY": True}
