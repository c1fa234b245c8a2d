# The operator: kopf and the slim MLflow client, nothing of training.
#   docker build -f docker/operator.Dockerfile .        (docker/build does the same with docker or buildah)
# BASE may be any Debian-like image with python3 >= 3.11 and its venv module.
ARG BASE=python:3.11-slim-bookworm

# Only what the requirements are made of: other changes of pyproject.toml leave the layers below alone.
FROM ${BASE} AS requirements
COPY pyproject.toml /src/
RUN python3 -c "import tomllib; project = tomllib.load(open('/src/pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['operator'], sep='\n')" > /requirements.txt

# The Kubernetes client's generated classes are loaded when used, and we use none: their bytecode (60 MB) stays out.
FROM ${BASE} AS dependencies
# pip reads these from the environment. None is kept in the image.
ARG PIP_CERT
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
COPY constraints.txt /src/
COPY --from=requirements /requirements.txt /src/
RUN python3 -m venv /opt/dropout \
 && /opt/dropout/bin/pip install --no-cache-dir --disable-pip-version-check --requirement /src/requirements.txt --constraint /src/constraints.txt \
 && /opt/dropout/bin/pip check \
 && /opt/dropout/bin/pip uninstall --quiet --yes setuptools pip \
 && find /opt/dropout/lib -type d -name tests -prune -exec rm -rf {} + \
 && find /opt/dropout/lib -path '*/kubernetes/*' \( -path '*/models/__pycache__' -o -path '*/api/__pycache__' \) -prune -exec rm -rf {} +

# Built on the stage above rather than copied from it: copying means hashing all of it at every build.
FROM dependencies
RUN echo 'dropout:x:65532:65532:dropout-operator:/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'dropout:x:65532:' >> /etc/group
ENV PATH=/opt/dropout/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
RUN for file in /opt/dropout/lib/python3*/site-packages; do echo /opt/dropout/src > "$file/dropout.pth"; done
COPY crds/dropout_api /opt/dropout/src/dropout_api
COPY operator/dropout_operator /opt/dropout/src/dropout_operator
# Fails when anything of the other half is in the image, or when the entry point cannot be imported.
RUN python -c "import importlib.metadata as m, importlib.util as u; packages = {d.metadata['Name'].lower() for d in m.distributions()}; found = [n for n in ('torch', 'pandas', 'pyarrow', 'sklearn', 'flask', 'dropout_trainer') if u.find_spec(n)] + sorted(packages & {'mlflow'}); assert not found, f'not for the operator image: {found}'; import dropout_operator, kopf, kubernetes, mlflow" \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/dropout/src
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "dropout_operator"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dropout-operator" \
      org.opencontainers.image.description="Operator of DropoutTrainingJob" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/dropout-operator/dropout-operator" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
