//go:build wasip1

// Package export_tidegate_policy_authorizer calls the policy. The generated bindings import it by this name.
package export_tidegate_policy_authorizer

import (
	"tidegate/policy/internal/bindings/tidegate_policy_types"
	"tidegate/policy/internal/host"
	"tidegate/policy/internal/wit/types"
)

// Authorize evaluates the policy.
func Authorize(
	request tidegate_policy_types.Request, channels []string,
) wit_types.Result[tidegate_policy_types.Grant, tidegate_policy_types.Rejection] {
	host.Open()
	defer host.Close()
	if host.Decide == nil {
		panic("the policy has no init function that calls policy.Handle")
	}
	answer := host.Decide(host.Request{
		Method:        request.Method,
		Scheme:        request.Scheme,
		Authority:     request.Authority,
		PathWithQuery: request.PathWithQuery,
		Headers:       toFields(request.Headers),
		ClientAddress: request.ClientAddress,
		Channels:      channels,
	})
	if !answer.Allowed {
		return wit_types.Err[tidegate_policy_types.Grant](tidegate_policy_types.Rejection{
			Status:  answer.Status,
			Headers: toHeaders(answer.Headers),
			Body:    answer.Body,
		})
	}
	grant := tidegate_policy_types.Grant{Headers: toHeaders(answer.Headers)}
	if answer.Subject != "" {
		grant.Subject = wit_types.Some(answer.Subject)
	}
	if len(answer.Channels) > 0 {
		grant.Channels = wit_types.Some(answer.Channels)
	}
	if answer.Expires {
		grant.ExpiresAt = wit_types.Some(answer.ExpiresAt)
	}
	return wit_types.Ok[tidegate_policy_types.Grant, tidegate_policy_types.Rejection](grant)
}

func toFields(headers []tidegate_policy_types.Header) []host.Header {
	fields := make([]host.Header, len(headers))
	for i, header := range headers {
		fields[i] = host.Header(header)
	}
	return fields
}

func toHeaders(fields []host.Header) []tidegate_policy_types.Header {
	headers := make([]tidegate_policy_types.Header, len(fields))
	for i, field := range fields {
		headers[i] = tidegate_policy_types.Header(field)
	}
	return headers
}
