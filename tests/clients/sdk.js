// Uses the official JS SDK (npm `phospho`) as an app does:  node sdk.js BASE_URL
const Phospho = require("phospho");

(async () => {
  const client = new Phospho("app-key", "js-project", process.argv[2] + "/v0");
  const first = await client.log("How far is the moon? 🌙", "384,400 km");
  const second = await client.log("And the sun?", null);
  console.log(JSON.stringify({ replies: [first, second] }));
})();
