"""The training engine of lorakiln: trains, and knows nothing of screens.

Importing the package costs nothing; torch is imported only by the modules that compute.
"""
