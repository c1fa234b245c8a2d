"""The contract between the operator, the pods it starts and their users.

Typed spec and status of a `DropoutTrainingJob`, the tasks and reports that cross a pod's border, the layout of a
candidate model, and every shared name. It imports pydantic and nothing else, so both halves can depend on it.
"""
