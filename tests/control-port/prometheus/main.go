// Command prometheus checks the gateway's metrics and alerting rules with Prometheus' own code. The answer of /metrics comes from stdin.
//
//	prometheus metrics           is it what Prometheus can read, and named as promtool wants names
//	prometheus rules <tests>     do the alerts fire when they should, and only then, and do the series that they query exist
package main

import (
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func main() {
	var problems []string
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "metrics":
		problems = lint()
	case len(args) == 2 && args[0] == "rules":
		problems = rules(args[1])
	default:
		problems = []string{"usage: prometheus metrics | prometheus rules <tests>"}
	}
	for _, problem := range problems {
		fmt.Fprintln(os.Stderr, problem)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

func lint() []string {
	found, err := promlint.New(os.Stdin).Lint()
	if err != nil {
		return []string{fmt.Sprint("not what Prometheus can read: ", err)}
	}
	var problems []string
	for _, problem := range found {
		problems = append(problems, fmt.Sprintf("%s: %s", problem.Metric, problem.Text))
	}
	return problems
}
