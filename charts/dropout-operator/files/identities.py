"""Makes MLflow's users and roles before the server starts; safe to run again and again.

    identities.py FOLDER

FOLDER holds one folder for each identity with its `username` and `password`: admin, operator and verifier. The operator's
also holds `trainer-key`. It runs as the init container of the bundled MLflow, which owns the database, so that no program has to
know the administrator's password.

- admin: a person; may do everything.
- operator: MANAGE in the workspace, which creating experiments, users and grants takes. Not an administrator.
- verifier: may add to any run, and write the registry.
- trainers (`trainer.NAMESPACE`) are made by the operator, with EDIT on the experiments of their namespace. Their passwords follow
  from the trainer key, so a new key means new passwords here.
"""

import base64
import hashlib
import hmac
import sys
from pathlib import Path

from mlflow.server.auth.config import read_auth_config
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

WORKSPACE = "default"
OPERATOR_ROLE = ("dropout-operator", {"workspace": "MANAGE"})
VERIFIER_ROLE = ("dropout-verifier", {"workspace": "USE", "experiment": "EDIT", "registered_model": "EDIT"})
TRAINER_PREFIX = "trainer."


def main(folder: Path) -> None:
    store = SqlAlchemyStore()
    store.init_db(read_auth_config().database_uri)
    ensure_user(store, folder / "admin", is_admin=True)
    for name, role in (("operator", OPERATOR_ROLE), ("verifier", VERIFIER_ROLE)):
        user_id = ensure_user(store, folder / name)
        ensure_role(store, *role, user_id)
    renew_trainers(store, read(folder / "operator" / "trainer-key"))


def read(path: Path) -> str:
    return path.read_text().strip()


def ensure_user(store: SqlAlchemyStore, folder: Path, is_admin: bool = False) -> int:
    """The id of a user with exactly this password and standing."""
    username, password = read(folder / "username"), read(folder / "password")
    if not store.has_user(username):
        print(f"creating user {username}")
        return store.create_user(username, password, is_admin=is_admin).id
    if not store.authenticate_user(username, password):
        print(f"changing the password of user {username}")
        store.update_user(username, password=password)
    if store.get_user(username).is_admin != is_admin:
        print(f"changing the standing of user {username}")
        store.update_user(username, is_admin=is_admin)
    return store.get_user(username).id


def ensure_role(store: SqlAlchemyStore, name: str, grants: dict[str, str], user_id: int) -> None:
    """The role has these grants on everything of its workspace, no other, and this user alone."""
    roles = {role.name: role.id for role in store.list_roles([WORKSPACE])}
    role_id = roles[name] if name in roles else store.create_role(name, WORKSPACE, "Kept by the chart dropout-operator").id
    kept = set()
    for grant in store.list_role_permissions(role_id):
        if grant.resource_pattern == "*" and grants.get(grant.resource_type) == grant.permission:
            kept.add(grant.resource_type)
        else:
            store.remove_role_permission(grant.id)
    for resource_type in grants.keys() - kept:
        store.add_role_permission(role_id, resource_type, "*", grants[resource_type])
    members = {assignment.user_id for assignment in store.list_role_users(role_id)}
    for other in members - {user_id}:
        store.unassign_role_from_user(other, role_id)
    if user_id not in members:
        store.assign_role_to_user(user_id, role_id)


def renew_trainers(store: SqlAlchemyStore, key: str) -> None:
    """Gives every trainer the password that the operator derives for its namespace."""
    for user in store.list_users():
        if user.username.startswith(TRAINER_PREFIX) and not user.is_admin:
            password = trainer_password(key.encode(), user.username.removeprefix(TRAINER_PREFIX))
            if not store.authenticate_user(user.username, password):
                print(f"changing the password of user {user.username}")
                store.update_user(user.username, password=password)


def trainer_password(key: bytes, namespace: str) -> str:
    """As `dropout_operator.identities` derives it; a test holds the two together."""
    digest = hmac.new(key, f"trainer/{namespace}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest)[:32].decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
