module my-policy

go 1.24

require (
	github.com/gorilla/securecookie v1.1.2
	github.com/gorilla/sessions v1.4.0
	tidegate/policy v0.0.0
)

replace tidegate/policy => ./sdk
