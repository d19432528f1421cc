"""Many runs: grids as plain data, and what launches them."""
