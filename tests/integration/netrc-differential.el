;;; netrc-differential.el --- What auth-source finds  -*- lexical-binding: t; -*-

;;; Commentary:

;; Run by netrc_differential.rs with the name of a file of queries, each a list
;; (SOURCE HOST PORT USER), SOURCE an element of `auth-sources'.  Prints a line for each: "error", "none", or "found" with
;; user, secret and smtp-auth, each "-" (nil) or "=" and base64 of its UTF-8 bytes.

;;; Code:

(require 'auth-source)

(defun netrc-differential-encode (value)
  "Encode VALUE, a string, function that returns one, or nil."
  (cond ((null value) "-")
        ((functionp value) (netrc-differential-encode (funcall value)))
        (t (concat "=" (base64-encode-string (encode-coding-string value 'utf-8-unix) t)))))

(defun netrc-differential-search (query)
  "Return the line to print for QUERY."
  (pcase-let ((`(,source ,host ,port ,user) query))
    (condition-case nil
        (let* ((auth-sources (list source))
               (auth-source-do-cache nil)
               (auth-source-netrc-cache nil)
               (found (auth-source-search :host host :port port :user user :max 1)))
          (if (null found)
              "none"
            (mapconcat #'identity
                       (cons "found"
                             (mapcar (lambda (key)
                                       (netrc-differential-encode (plist-get (car found) key)))
                                     '(:user :secret :smtp-auth)))
                       " ")))
      (error "error"))))

(let ((queries (with-temp-buffer
                 (let ((coding-system-for-read 'utf-8-unix))
                   (insert-file-contents (pop command-line-args-left)))
                 (read (current-buffer)))))
  (dolist (query queries)
    (princ (netrc-differential-search query))
    (terpri)))

;;; netrc-differential.el ends here
