"""An example of a user's own package: will a customer leave?"""
