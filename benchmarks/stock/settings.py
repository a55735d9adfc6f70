"""A minimal Django project: Channels with the Redis pub/sub layer, nothing else."""

import os

SECRET_KEY = "the stock baseline of a benchmark keeps no secrets"
INSTALLED_APPS = ["daphne", "channels"]
ASGI_APPLICATION = "benchmarks.stock.asgi.application"
USE_TZ = True
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [os.environ["REDIS_URL"]], "prefix": "stock"},
    }
}
