"""EdgeTA: a small proxy of the foundation model for each domain, and feedback from it.

Zhang, Han, Liu, Wang, Guo, Chen: "EdgeTA: Neuron-Grained Scaling of Foundation Models in Edge-Side
Retraining", IEEE Transactions on Mobile Computing 24(4), 2025. Offline (`offline`) a knowledge
base, a narrow copy of the model, is distilled, its neurons are given input-dependent importances,
and a neuron index (`index`) is learned that writes its neurons as combinations of the model's.
On the device (`proxies`) each domain gets a proxy, the knowledge base with its unimportant
neurons left out; the proxy is retrained, by feature alignment (`method`) or with labels
(`supervised`), and what it learned goes back to the knowledge base and the model, from which the
next domain starts. `steps` compares the cost of a proxy's step with the model's.

The defects of the authors' release, W4 to W14, and the setting that chooses between the released
and the corrected behaviour: docs/explanation/edgeta-release-defects.md.
"""
