"""Several applications on one device: EdgeTA for each, and a scheduler over them.

Each application has its own copy of the foundation model, or a model for a task of its own, its own
knowledge base and its own stream of domains (`bench.methods.edgeta`); they share the device and one
retraining window. In each window the costs and accuracies to expect are estimated without labels
(`estimate`), a scheduler of `bench.scheduling` chooses every application's sparsity and share, the
proxies are retrained one after another within their shares (`retraining`), and what they learned
goes back, with the applications' models averaged in between where they are copies of one
(`feedback`). `groups` says which applications share a model, and what is known of them; inputs are
routed to their application's proxy by `routing`. `method` holds it together and is registered once
for each scheduler.
"""
