"""From measurements to parameters: the fit of any signal model, its solvers, noise models and error bars."""
