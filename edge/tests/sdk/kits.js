// Makes tickets of version 2 with a published kit; prints them as one JSON object.
// Arguments: key, application, user, room, seconds of validity. Run by sdk_access.rs.

const {Api} = require("tls-sig-api-v2");

const [key, appId, user, room, validS] = process.argv.slice(2);
const api = new Api(Number(appId), key);
const mapKey = (rights) => api.genPrivateMapKey(user, Number(validS), Number(room), rights);
console.log(JSON.stringify({
  usersig: api.genUserSig(user, Number(validS)),
  map_key_ff: mapKey(0xff),
  map_key_ab: mapKey(0xab),
  map_key_named: api.genPrivateMapKeyWithStringRoomID(user, Number(validS), "room-A1", 0xff),
}));
