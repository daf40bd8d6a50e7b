// An assembly file, so that functions without a body are allowed here.
