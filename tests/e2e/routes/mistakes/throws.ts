const settings = JSON.parse("{");

export const middleware = () => settings;
