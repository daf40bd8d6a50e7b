// Command prometheus checks the gateway's metrics and alerting rules with Prometheus' own code. The metrics are read from stdin.
//
//	prometheus metrics           checks that Prometheus can parse the metrics, and that promtool accepts their names
//	prometheus rules <tests>     checks that the alerts fire exactly when the tests expect it, and that the series that they query exist
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
		return []string{fmt.Sprint("Prometheus cannot parse the metrics: ", err)}
	}
	var problems []string
	for _, problem := range found {
		problems = append(problems, fmt.Sprintf("%s: %s", problem.Metric, problem.Text))
	}
	return problems
}
