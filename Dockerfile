# One image for all processes; compose.yaml and deploy/kubernetes/ name the command of each.
FROM python:3.11-slim AS wheel

WORKDIR /source
COPY pyproject.toml setup.py requirements.in README.md LICENSE ./
COPY accounts accounts
COPY imgo_site imgo_site
COPY offline offline
COPY push push
COPY templates templates
RUN pip wheel --no-cache-dir --disable-pip-version-check --no-deps --wheel-dir /dist .

FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/imgo

# Before the wheel: a change of the code does not install everything anew.
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt \
    && useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin imgo
COPY --from=wheel /dist /dist
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-index /dist/*.whl

# By its number: Kubernetes can tell that it is not root.
USER 10001
ENV IMGO_HOST=0.0.0.0 IMGO_DATA_DIR=/tmp/imgo
EXPOSE 8000 8080 8090 8200

# A node's. compose.yaml has others for the other processes, and Kubernetes ignores this one.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]

CMD ["imgo", "node"]
