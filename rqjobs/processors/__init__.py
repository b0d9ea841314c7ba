"""What the jobs do: one module or package a job type; they never import each other."""
