module go-session-based

go 1.24

require tidegate/policy v0.0.0

replace tidegate/policy => ../../sdk/go
