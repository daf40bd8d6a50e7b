module tidegate/policy

go 1.24
