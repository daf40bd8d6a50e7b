const jwtSecret = "correct-horse-battery-staple";
const token = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

export const middleware = nothing(jwtSecret, token);
