"""How the minimum is found: least squares, a weighted straight line, gradient descent; one file per idea."""
