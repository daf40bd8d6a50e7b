module my-policy

go 1.24

require tidegate/policy v0.0.0

require github.com/golang-jwt/jwt/v5 v5.3.1

replace tidegate/policy => ./sdk
