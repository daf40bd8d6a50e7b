module my-policy

go 1.24.0

require tidegate/policy v0.0.0

require github.com/go-jose/go-jose/v4 v4.1.9

replace tidegate/policy => ./sdk
