"""What runs on the device: standard library, numpy and a runtime, nothing else of ours. Python 3.9 and newer.

`secateur.evaluators.devices` packs this folder into one file, pushes it and talks to it in lines of JSON. The host uses the same
modules where it measures or scores on its own, so there is one protocol and one way to open a model.
"""
