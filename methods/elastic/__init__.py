"""ElasticTrainer: of the tensors that a method trains, those that pay most within a budget."""
