import os

if "SHOP_BROKER" in os.environ:  # only one test has a worker
    from shop.celery import app as celery_app

    __all__ = ["celery_app"]
