export const middleware = () => {
  const a = ;
};
