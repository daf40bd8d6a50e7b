import _ from "lodash";
import { allow, cookie, lookup, reject, type Middleware } from "@tidegate/policy";

interface Team {
  name: string;
  members: { id: string; role: string }[];
}

export const middleware: Middleware = ({ request, channels }) => {
  const user = cookie(request, "user");
  const teams = lookup.json("teams:all") as Team[];
  const roles = _.mapValues(_.keyBy(teams, "name"), ({ members }) => _.get(_.find(members, { id: user }), "role", "none"));
  const wanted = _.uniq(_.map(channels, (channel) => _.trimStart(channel, "team-")));
  const missing = _.difference(wanted, _.keys(_.pickBy(roles, (role) => role !== "none")));
  if (!_.isEmpty(missing)) return reject(403, _.upperFirst(_.join(_.sortBy(missing), ", ")));
  return allow({ subject: user, headers: { "x-roles": _.kebabCase(_.join(_.uniq(_.values(_.cloneDeep(roles))), " ")) } });
};
