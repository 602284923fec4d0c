"""Where the frozen base lives and in which precision: packed weights, streaming, offloading, what memory holds."""
