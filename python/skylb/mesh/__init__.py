"""Other balancers: their list, what each knows of the others, and how forwards prove their sender."""
