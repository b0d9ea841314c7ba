"""Test doubles of the services that jobs call: servers on loopback that speak the real protocols.

They serve the demo, tests, and first trials.
"""
