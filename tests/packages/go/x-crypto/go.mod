module my-policy

go 1.26.0

require tidegate/policy v0.0.0

require (
	golang.org/x/crypto v0.59.0
	golang.org/x/sys v0.50.0 // indirect
)

replace tidegate/policy => ./sdk
