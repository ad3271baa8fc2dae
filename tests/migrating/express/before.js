// The application of src/application.rs on express-session, without express: the middleware takes Node's own requests. Prints its
// port, or (`before.js names`) each option and method that express-session has.
'use strict';
const fs = require('fs');
const http = require('http');
const session = require('express-session');

if (process.argv[2] === 'names') {
  const source = fs.readFileSync(require.resolve('express-session'), 'utf8');
  const names = new Set([...source.matchAll(/\bopts\.(\w+)/g)].map((match) => match[1]));
  for (const type of [session.Session, session.Cookie, session.Store, session.MemoryStore]) {
    for (const name of Object.getOwnPropertyNames(type.prototype)) names.add(name);
  }
  console.log([...names].join(' '));
  process.exit(0);
}

const withSession = session({ secret: 'of a test', resave: false, saveUninitialized: false, cookie: { maxAge: 3600000 } });

const server = http.createServer((request, response) => {
  withSession(request, response, () => {
    const answer = (error, text) => {
      response.statusCode = error ? 500 : 200;
      response.end(error ? String(error) : String(text));
    };
    const [, path, user] = request.url.split('/');
    switch (`${request.method} ${path}`) {
      case 'POST visit':
        request.session.visits = (request.session.visits || 0) + 1;
        return answer(null, request.session.visits);
      case 'POST login': {
        const visits = request.session.visits; // regenerate() drops all values
        return request.session.regenerate((error) => {
          if (error) return answer(error);
          Object.assign(request.session, { visits, user });
          answer(null, `hello, ${user}`);
        });
      }
      case 'GET me':
        return answer(null, request.session.user || 'nobody');
      case 'POST logout':
        return request.session.destroy((error) => answer(error, 'goodbye'));
      default:
        response.statusCode = 404;
        response.end();
    }
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
