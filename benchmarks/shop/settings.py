"""Settings of the project. The environment says which database, and where imgo is."""

import json
import os

DATABASES = {"default": json.loads(os.environ["SHOP_DATABASE"])}
SECRET_KEY = "a secret key for benchmarks only"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "benchmarks.shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["imgo_client.django", "benchmarks.shop"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
IMGO_CLIENT = json.loads(os.environ["SHOP_IMGO"])
