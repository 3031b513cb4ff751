"""Asks external authorizers about calls: what they are told, in which protocol, and what their answers may do."""
