"""Other balancers: who they are, what each knows of the others, and how forwards prove who sent them."""
