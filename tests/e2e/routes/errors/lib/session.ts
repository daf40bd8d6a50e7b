interface Session {
  user: { id: string };
}

/** Parses a session, and throws if it has no user. */
export async function userOf(text: string | null): Promise<string | undefined> {
  if (text === null) return undefined;

  const session: Session = JSON.parse(text);
  return session.user.id satisfies string;
}
