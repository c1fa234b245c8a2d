"""An example of a user's own package: will a patient's diabetes progress?"""
