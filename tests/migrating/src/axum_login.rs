//! axum-login 0.18: what it has besides a user database and permissions, which stay the application's.

mod before {
    use axum::response::IntoResponse;
    use axum::{Router, routing::get};
    use axum_login::tower_sessions::{MemoryStore, SessionManagerLayer};
    use axum_login::{
        AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend, AuthzBackend, UserId, login_required,
        permission_required, predicate_required,
    };
    use std::collections::HashSet;
    use std::convert::Infallible;

    #[derive(Clone, Debug)]
    struct User {
        id: i64,
        password_hash: Vec<u8>,
    }

    impl AuthUser for User {
        type Id = i64;

        fn id(&self) -> i64 {
            self.id
        }

        fn session_auth_hash(&self) -> &[u8] {
            &self.password_hash
        }
    }

    #[derive(Clone)]
    struct Users;

    impl AuthnBackend for Users {
        type User = User;
        type Credentials = (String, String);
        type Error = Infallible;

        async fn authenticate(&self, _: Self::Credentials) -> Result<Option<User>, Infallible> {
            Ok(Some(User { id: 1, password_hash: vec![1] }))
        }

        async fn get_user(&self, id: &UserId<Self>) -> Result<Option<User>, Infallible> {
            Ok(Some(User { id: *id, password_hash: vec![1] }))
        }
    }

    impl AuthzBackend for Users {
        type Permission = &'static str;

        async fn get_group_permissions(&self, _: &User) -> Result<HashSet<&'static str>, Infallible> {
            Ok(HashSet::new())
        }
    }

    async fn log_in(mut auth: AuthSession<Users>) -> impl IntoResponse {
        let user = auth.authenticate(("ada".to_owned(), "secret".to_owned())).await.ok().flatten();
        if let Some(user) = user {
            let _ = auth.login(&user).await;
            let _ = auth.session.insert("seen", true).await;
            let _ = auth.backend.has_perm(&user, "admin").await;
        }
    }

    async fn log_out(mut auth: AuthSession<Users>) -> String {
        let _ = auth.logout().await;
        format!("{}", auth.user.is_some())
    }

    fn app() -> Router {
        let layer = AuthManagerLayerBuilder::new(Users, SessionManagerLayer::new(MemoryStore::default()))
            .with_data_key("axum-login.data")
            .build();
        Router::new()
            .route("/logout", get(log_out))
            .route_layer(login_required!(Users, login_url = "/login"))
            .route("/admin", get(log_out))
            .route_layer(permission_required!(Users, "admin"))
            .route("/own", get(log_out))
            .route_layer(predicate_required!(|_: AuthSession<Users>| async { true }, "no"))
            .route("/login", get(log_in))
            .layer(layer)
    }
}

mod after {
    use axum::extract::{FromRequestParts, Path};
    use axum::http::request::Parts;
    use axum::response::{IntoResponse, Redirect, Response};
    use axum::{Router, routing::get};
    use hyper_session::{Error, MemoryStore, Session, SessionLayer};

    /// The user that is logged in: an extractor that replaces `AuthSession` and `login_required!`.
    struct User {
        id: String,
        session: Session,
    }

    impl<S: Sync> FromRequestParts<S> for User {
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
            let session =
                Session::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
            match session.subject() {
                Some(id) => Ok(Self { id: id.to_string(), session }),
                None => Err(Redirect::to("/login").into_response()),
            }
        }
    }

    async fn log_in(session: Session, Path(user): Path<String>) -> Result<String, Error> {
        // Look the user up, and check the password: as before.
        session.login(&user)?;
        session.set("seen", true)?;
        Ok(format!("hello, {user}"))
    }

    async fn log_out(user: User) -> Result<String, Error> {
        user.session.destroy()?;
        Ok(format!("goodbye, {}", user.id))
    }

    /// In the place of `session_auth_hash`: a new password ends the other logins.
    async fn change_password(user: User) -> Result<String, Error> {
        user.session.reauthenticate()?;
        let ended = user.session.end_other_sessions().await?;
        Ok(format!("{} other devices are logged out", ended.unwrap_or_default()))
    }

    fn app() -> Result<Router, Error> {
        let store = MemoryStore::builder().build()?;
        Ok(Router::new()
            .route("/login/{user}", get(log_in))
            .route("/logout", get(log_out))
            .route("/password", get(change_password))
            .layer(SessionLayer::new(store)))
    }

    #[test]
    fn the_routes_fit_together() {
        assert!(app().is_ok());
    }
}
