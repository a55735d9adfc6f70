# One image for all processes; compose.yaml says which command each runs.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/imgo

# Before the code: a change of the code does not install everything anew.
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt \
    && useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin imgo

COPY manage.py ./
COPY accounts accounts
COPY imgo_site imgo_site
COPY offline offline
COPY push push
COPY templates templates

USER imgo
ENV IMGO_HOST=0.0.0.0 IMGO_DATA_DIR=/tmp/imgo
EXPOSE 8000 8080 8090

# A node's; the other processes have theirs in compose.yaml.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]

CMD ["python", "manage.py", "imgo"]
