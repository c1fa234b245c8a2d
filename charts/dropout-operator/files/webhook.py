"""Tells the bundled MLflow to call the operator when the registry is written; safe to run again and again.

    webhook.py DATABASE_URI [URL]

Without URL the call is taken back. MLflow lets only administrators do this over HTTP, and the operator is none; so it runs as
an init container of the server, which owns the database. The secret is in WEBHOOK_SECRET, and is stored under
MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY. What was there before is not read, because another key may have written it.
"""

import os
import sys

from mlflow.entities.webhook import WebhookEvent
from mlflow.store.model_registry.dbmodels.models import SqlWebhook, SqlWebhookEvent
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from mlflow.utils.workspace_context import WorkspaceContext

NAME = "dropout-operator"
EVENTS = ("model_version.created", "model_version_alias.created", "model_version_tag.set", "model_version_tag.deleted")


def main(database: str, url: str | None) -> None:
    with WorkspaceContext("default"):
        store = WorkspaceAwareSqlAlchemyStore(database)
        forget(store)
        if url:
            store.create_webhook(NAME, url, [WebhookEvent.from_str(event) for event in EVENTS], secret=os.environ["WEBHOOK_SECRET"])
    print(f"MLflow calls {url}" if url else "MLflow calls nobody")


def forget(store: WorkspaceAwareSqlAlchemyStore) -> None:
    """Deletes our webhook by its name, unread."""
    with store.ManagedSessionMaker() as session:
        ours = [row.webhook_id for row in session.query(SqlWebhook.webhook_id).filter(SqlWebhook.name == NAME)]
        session.query(SqlWebhookEvent).filter(SqlWebhookEvent.webhook_id.in_(ours)).delete(synchronize_session=False)
        session.query(SqlWebhook).filter(SqlWebhook.webhook_id.in_(ours)).delete(synchronize_session=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
