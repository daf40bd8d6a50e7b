type Host = string;

// Without the setting this line throws, in each instance.
export const allowedHosts: Host[] = process.env.HOSTS!.split(",");
