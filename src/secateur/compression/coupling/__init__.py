"""Which channels must leave a network together, found by experiment.

A channel that one layer writes is marked, the user's forward() runs, and where the mark arrives the channel is read. Nobody has to
know what forward() does in between. `layers` says what layers do with channels, `experiment` runs the passes, `following` plans
them, `units` reads the result. What is found is a claim: `secateur.compression.proof` checks each group by numbers before anything
is cut with it.
"""
